"""A version on Milvus: its rows in one collection, what it is in a record beside it, one alias for what is in service."""
