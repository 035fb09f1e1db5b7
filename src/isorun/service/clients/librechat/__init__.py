"""LibreChat's code API, below `/librechat/v1`: programs, their files, and tools of LibreChat that programs call.

It has a prefix of its own because `/v1/files` is this service's; LibreChat's `LIBRECHAT_CODE_BASEURL` takes one.
"""

PREFIX = "/librechat/v1"
