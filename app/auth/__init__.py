"""Who somebody is: tokens, their keys and claims, passwords and their hashes. Knows no database and no HTTP."""
