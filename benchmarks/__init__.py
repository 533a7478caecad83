"""The registry beside Debian's docker-registry on one machine: `make bench`, explained in docs/performance.md.

Nothing in here is part of the product. Requests come from wrk and curl, and where those cannot send what a client
sends (HEAD, a whole push), from `generator`, whose own use of the processor is measured with the rest.
"""
