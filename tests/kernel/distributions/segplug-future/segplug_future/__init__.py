"""Speaks a later plugin API."""

segplug_api_version = 99
