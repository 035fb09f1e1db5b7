"""ctypes, decimal, dataclasses, json, csv, pickle, hashing, xml, text, numbers: one line or two of each."""

import base64
import configparser
import csv
import ctypes
import ctypes.util
import dataclasses
import decimal
import difflib
import enum
import fractions
import hashlib
import hmac
import html
import io
import itertools
import json
import pickle
import random
import re
import statistics
import struct
import sys
import tomllib
import unicodedata
import urllib.parse
import uuid
import xml.etree.ElementTree as ElementTree
from email.message import EmailMessage

libc = ctypes.CDLL(ctypes.util.find_library("c"))
numbers = (ctypes.c_int * 6)(5, 3, 9, 1, 7, 2)
Compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
libc.qsort(numbers, 6, ctypes.sizeof(ctypes.c_int), Compare(lambda a, b: a[0] - b[0]))  # C calls Python back
print("ctypes", list(numbers), libc.strlen("ünï".encode()))


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int16), ("y", ctypes.c_double))


print("structure", bytes(Point(1, 2.5)).hex(), ctypes.sizeof(Point))
with decimal.localcontext(prec=50):
    print("decimal", decimal.Decimal(2).sqrt(), decimal.Decimal("1E+3").normalize())
print("fraction", sum(fractions.Fraction(1, n) for n in range(1, 20)), statistics.stdev([1, 2, 3.5]))


class Colour(enum.Flag):
    RED = enum.auto()
    BLUE = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Item:
    name: str
    price: float = 1.5
    tags: list[str] = dataclasses.field(default_factory=list)


item = Item("Öl", tags=["a"])
print(dataclasses.replace(item, price=2), dataclasses.asdict(item), item < Item("ß"), Colour.RED | Colour.BLUE)
print("pickle", pickle.loads(pickle.dumps([item, Colour.BLUE, {1, 2}])))
print("json", json.dumps({"ü": [1, 2.5, None, True]}, ensure_ascii=False, indent=1, sort_keys=True))
table = io.StringIO()
csv.writer(table).writerows([["a", 'say "hi"'], ["new\nline", "ü,;"]])
print("csv", repr(table.getvalue()), list(csv.reader(io.StringIO(table.getvalue()))))
print("toml", tomllib.loads("a = [1, 2]\n[b]\nc = 1979-05-27T07:32:00Z\n"))
config = configparser.ConfigParser()
config.read_string("[one]\nx = 1\ny = %(x)s2\n")
print("ini", dict(config["one"]))
tree = ElementTree.fromstring("<a><b n='1'>x</b><b n='2'>é</b></a>")
print("xml", [(b.get("n"), b.text) for b in tree.iter("b")], ElementTree.tostring(tree))
for name in ("md5", "sha256", "sha3_256", "blake2b"):
    print(name, hashlib.new(name, b"data").hexdigest()[:16])
print(
    "scrypt",
    hashlib.scrypt(b"p", salt=b"s", n=1024, r=8, p=1).hex()[:16],
    hmac.new(b"k", b"m", "sha1").hexdigest(),
)
rng = random.Random(5)
print("random", rng.random(), rng.sample(range(100), 4), rng.gauss(0, 1))
print(
    "uuid",
    uuid.uuid5(uuid.NAMESPACE_DNS, "example.org"),
    base64.b85encode(b"bytes"),
    struct.pack(">Id", 7, 0.5).hex(),
)
print("unicode", unicodedata.normalize("NFD", "é").encode(), unicodedata.name("€"), "ﬀ".casefold(), "İ".lower())
print("text", html.escape("<ü>"), urllib.parse.quote("a b/ü"), re.sub(r"(?<=\d)(?=(\d{3})+\b)", ",", "1234567"))
print("diff", list(difflib.unified_diff(["a\n", "b\n"], ["a\n", "c\n"], lineterm="")))
mail = EmailMessage()
mail["Subject"] = "Grüße"
mail.set_content("ü")
print("mail", hashlib.sha256(mail.as_bytes()).hexdigest()[:16])
print("primes", list(itertools.islice((n for n in itertools.count(2) if all(n % d for d in range(2, n))), 12)))
print("big", len(str(3**5000)), sys.maxsize, sys.float_info.epsilon, hash(1.5), hash((1, 2)))
