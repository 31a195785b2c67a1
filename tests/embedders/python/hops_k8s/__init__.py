"""Runs a container image as a pod, by the plugin k8s.wasm."""

from .plugin import CallError, Plugin, UnknownHandler

__all__ = ["CallError", "Plugin", "UnknownHandler"]
