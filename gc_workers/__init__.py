"""Garbage collection: the workers that take up the review queues. Still to come; the queues fill already."""
