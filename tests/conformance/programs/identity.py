"""Where the program is: home, host, time zones, locale, environment."""

import datetime
import locale
import os
import platform
import pwd
import socket
import sys
import time
import zoneinfo
from pathlib import Path

print("home", Path.home().is_dir(), os.path.expanduser("~") == str(Path.home()), os.access(Path.home(), os.W_OK))
print("host", socket.gethostname() != "", platform.node() == socket.gethostname(), platform.system())
try:
    pwd.getpwnam("no-such-user")
except KeyError as error:
    print(error)

moments = [datetime.datetime(2024, month, 31, 1, 30, tzinfo=datetime.UTC) for month in (1, 3, 10)]
for name in ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"):
    print(name, [m.astimezone(zoneinfo.ZoneInfo(name)).isoformat() for m in moments])
print("zones", len(zoneinfo.available_timezones()) > 400)
for zone in ("UTC", "Europe/Berlin", "EST5EDT"):
    os.environ["TZ"] = zone
    time.tzset()
    print(zone, time.tzname, time.strftime("%c %Z %z", time.localtime(1_720_000_000)))
print("clock", abs(time.time() - os.stat("/proc/self").st_ctime) < 100_000_000, time.monotonic() > 0)

print("locale", locale.setlocale(locale.LC_ALL, ""), locale.getlocale(), locale.getpreferredencoding())
print(
    "sorted",
    sorted(["zebra", "Äpfel", "apfel", "Zebra"], key=locale.strxfrm),
    locale.localeconv()["decimal_point"],
)
print("encodings", sys.getfilesystemencoding(), sys.stdout.encoding, sys.stderr.errors, os.device_encoding(1))
keys = ("LANG", "LC_ALL", "PYTHONUTF8")
print("environment", {key: os.environ[key] for key in keys})
os.environ["ADDED"] = "ä"
print("child sees", os.popen("echo $ADDED").read().strip(), os.getenv("MISSING", "default"))
