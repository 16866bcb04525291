"""Creation options: those that work are used, the others are refused with a reason before anything is done."""

import logging

import pytest

from ctrs.errors import UsageError
from ctrs.raster.creation_options import check_creation_options, with_defaults


@pytest.mark.parametrize(
    "options",
    [
        (),
        (("COMPRESS", "ZSTD"), ("LEVEL", "19")),
        (("COMPRESS", "lzw"), ("PREDICTOR", "YES")),
        (("COMPRESS", "NONE"), ("BIGTIFF", "YES")),
        (("BLOCKSIZE", "256"), ("OVERVIEW_COMPRESS", "LZW"), ("SPARSE_OK", "TRUE")),
        (("GEOTIFF_VERSION", "1.1"), ("STATISTICS", "YES"), ("NUM_THREADS", "2")),
    ],
)
def test_these_are_taken(options, recwarn):
    check_creation_options(options)
    assert not recwarn


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([("COMPRES", "LZW")], r"COMPRES=LZW: unknown name; expected one of COMPRESS, "),
        ([("COMPRESS", "JPEG")], r"COMPRESS=JPEG: 'JPEG' found, expected NONE, LZW.*which keep every value"),
        ([("COMPRESS", "WEBP")], r"which keep every value"),
        ([("OVERVIEWS", "NONE")], r"OVERVIEWS=NONE: not to be chosen, since overviews are always written"),
        ([("OVERVIEW_RESAMPLING", "CUBIC")], r"masks by majority"),
        ([("TILING_SCHEME", "GoogleMapsCompatible")], r"the mask stands on the scene's own grid"),
        ([("TARGET_SRS", "EPSG:3857")], r"the scene's own grid"),
        ([("NBITS", "4")], r"values are written as they are"),
        ([("BLOCKSIZE", "abc")], r"'abc' found, expected 128, 256"),  # the driver would end the process
        ([("BLOCKSIZE", "-16")], r"expected 128, 256"),
        ([("LEVEL", "99")], r"expected 1 to 22"),
        ([("LEVEL", "22"), ("COMPRESS", "DEFLATE")], r"LEVEL=22 COMPRESS=DEFLATE: refused by GDAL's COG driver \(ZLEV"),
        ([("COMPRESS", "LZW"), ("COMPRESS", "ZSTD")], r"one is given twice"),
    ],
)
def test_these_are_refused_in_one_line(options, message, caplog):
    with caplog.at_level(logging.WARNING), pytest.raises(UsageError, match=message) as caught:
        check_creation_options(options)
    assert "\n" not in str(caught.value)
    assert not caplog.records  # said once, by us


def test_the_drivers_word_is_taken_where_it_fails(monkeypatch):
    def fail(*_args, **_options):
        raise SystemError("no LZMA here")

    monkeypatch.setattr("rasterio.shutil.copy", fail)
    with pytest.raises(UsageError, match=r"COMPRESS=LZMA: refused by GDAL's COG driver \(no LZMA here\)"):
        check_creation_options([("COMPRESS", "LZMA")])


def test_a_level_goes_with_its_compression():
    ours = {"compress": "DEFLATE", "LEVEL": "5", "BLOCKSIZE": "512"}
    assert with_defaults([], **ours) == {"COMPRESS": "DEFLATE", "LEVEL": "5", "BLOCKSIZE": "512"}
    assert with_defaults([("LEVEL", "9")], **ours)["LEVEL"] == "9"
    assert "LEVEL" not in with_defaults([("COMPRESS", "ZSTD")], **ours)
