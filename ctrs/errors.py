"""Every error and warning that ctrs raises on purpose.

    CtrsError                       exit 1
    ├── UsageError (ValueError)     exit 2: the call is wrong, whatever the data
    │   └── ConfigError             a key or value of a configuration
    ├── InputNotFoundError (FileNotFoundError)   a file, folder, prepared data set or run that is not there
    ├── OutputError (OSError)       a path that cannot be written
    │   └── OutputExistsError (FileExistsError)  a different result stands there already
    ├── RasterError (ValueError)    a raster that cannot be read or does not fit
    │   ├── GridMismatchError       two rasters whose grids differ
    │   ├── BandMismatchError       a band count or dtype other than expected
    │   └── ImageryMismatchError    a scene unlike the training imagery, where only the like is wanted
    ├── LabelError (ValueError)     labels that cannot be used
    │   └── UnknownColorError       colours or values outside the class table
    ├── DataError (ValueError)      prepared data that cannot serve the purpose
    ├── CheckpointError (ValueError)  weights of another kind, broken or incomplete
    ├── DeviceError (RuntimeError)  a device that is not there
    ├── TrainingError (RuntimeError)  training that cannot go on
    └── ExportError (RuntimeError)  a network that another format cannot hold faithfully

    CtrsWarning (UserWarning)
    ├── MissingCrsWarning           pixel coordinates are used instead
    ├── LabelWarning                labels were changed or look odd; counted
    ├── LayerWarning                a format that cannot hold all of a layer
    ├── OptionWarning               an option that changes nothing about what it was given with
    └── DataWarning                 imagery that looks odd

A message is one line that says what is wrong, where, what was found, what was expected and what to do next.
"""

from __future__ import annotations


class CtrsError(Exception):
    """Root of all errors that a user can meet; ``exit_code`` is what the command line returns."""

    exit_code = 1


class UsageError(CtrsError, ValueError):
    """The call itself is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration key or value is wrong."""


class InputNotFoundError(CtrsError, FileNotFoundError):
    """An input that is not there."""


class OutputError(CtrsError, OSError):
    """An output that cannot be written."""


class OutputExistsError(OutputError, FileExistsError):
    """A different result stands under the output's name."""


class RasterError(CtrsError, ValueError):
    """A raster that cannot be read or used."""


class GridMismatchError(RasterError):
    """Two rasters that should share a grid do not."""


class BandMismatchError(RasterError):
    """A band count or dtype other than expected."""


class ImageryMismatchError(RasterError):
    """A scene that differs from the imagery that a network was trained on."""


class LabelError(CtrsError, ValueError):
    """Labels that cannot be used."""


class UnknownColorError(LabelError):
    """Label colours or values that the class table does not hold."""


class DataError(CtrsError, ValueError):
    """Prepared data that cannot serve the purpose."""


class CheckpointError(CtrsError, ValueError):
    """A checkpoint or weight file of another kind, broken or incomplete."""


class DeviceError(CtrsError, RuntimeError):
    """A compute device that is not there."""


class TrainingError(CtrsError, RuntimeError):
    """Training that cannot go on."""


class ExportError(CtrsError, RuntimeError):
    """A network that cannot be exported, or whose export computes something else."""


class CtrsWarning(UserWarning):
    """Root of all warnings."""


class MissingCrsWarning(CtrsWarning):
    """A raster without CRS; pixel coordinates are used."""


class LabelWarning(CtrsWarning):
    """Labels were changed (and counted) or look odd."""


class LayerWarning(CtrsWarning):
    """A polygon layer in a format that cannot hold all of it as it is."""


class OptionWarning(CtrsWarning):
    """An option that changes nothing about what it was given with."""


class DataWarning(CtrsWarning):
    """Imagery or prepared data that looks odd."""
