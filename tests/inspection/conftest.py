from tests.prepared_data import prepared, tiny_config, write_prepared

__all__ = ["prepared", "tiny_config", "write_prepared"]
