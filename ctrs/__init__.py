"""ctrs turns aerial and satellite imagery into maps: tiles, training, scores, city-wide masks, building polygons.

Importing the package imports nothing else, so that ``ctrs --help`` is instant; take what you need from its rooms:
``ctrs.tiles``, ``ctrs.training``, ``ctrs.inference``, ``ctrs.vector``, ``ctrs.models``, ``ctrs.losses`` and
``ctrs.metrics``.
"""

__version__ = "0.1.0"
