"""A synthetic town in the layout of ISPRS Potsdam: the data set of the demo and of the tests.

``make_town`` writes it. The way of a scene: ``streets`` draws the plan, ``blocks`` and ``houses`` furnish it through a
``site``, an ``inventory`` holds what stands there, ``ground`` and ``buildings`` paint it on a ``canvas``, ``scene``
develops the picture, ``town`` writes the files.

Apart from the town stand ``footprints``, buildings whose walls are known exactly, and ``mask_noise``, masks of them
with the errors of networks: what polygons drawn from masks are judged by.
"""

from ctrs.synthetic.town import TownConfig, make_town

__all__ = ["TownConfig", "make_town"]
