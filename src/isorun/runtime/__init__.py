"""The trusted part of the host process that takes a run from request to outcome."""
