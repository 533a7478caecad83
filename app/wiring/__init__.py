"""Settings → objects. The one place where things are built, and closed in order again."""
