"""A model's C as a shared library of this computer: compiled by its own compiler, opened through ctypes."""

from ._build import Source as Source
from ._build import build as build
from ._build import built as built
from ._build import built_here as built_here
from ._build import library_key as library_key
from ._compiler import Compiler as Compiler
from ._compiler import find_compiler as find_compiler
from ._compiler import host_suffix as host_suffix
from ._compiler import missing as missing
from ._library import Library as Library
from ._library import Stream as Stream
from ._record import Record as Record
from ._record import read_record as read_record

__all__ = [
    "Compiler",
    "Library",
    "Record",
    "Source",
    "Stream",
    "build",
    "built",
    "built_here",
    "find_compiler",
    "host_suffix",
    "library_key",
    "missing",
    "read_record",
]
