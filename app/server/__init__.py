"""The processes: a supervisor, which owns the sockets, and the workers, which serve on them."""
