"""A local server that speaks the Messages API, for tests and demos: see ``llm_server.server``."""
