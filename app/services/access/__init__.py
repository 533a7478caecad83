"""Access controllers: from what a request brings to the caller that it is from, and what to ask for if that fails."""
