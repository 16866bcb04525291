"""Scenes and labels become tiles on disk: ``prepare_tiles`` writes them, ``Manifest`` reads them."""
