"""Versions on Milvus: rows in one collection each, a record for each, an alias for the current."""
