from __future__ import annotations

import logging

from django.apps import AppConfig
from sluice_core import NotPrimary


class SluiceConfig(AppConfig):
    name = "django_sluice"
    verbose_name = "Sluice"

    def ready(self) -> None:
        from . import checks  # noqa: F401

        for name in ("django.request", "django.dispatch"):
            logger = logging.getLogger(name)
            if not any(isinstance(each, NoRefusals) for each in logger.filters):
                logger.addFilter(NoRefusals())


class NoRefusals(logging.Filter):
    """
    A write that is refused in a middleware, such as a session that is saved after the view, or in a signal's receiver,
    passes through Django's handling of errors before SluiceMiddleware has the request replayed: that is no "Internal
    Server Error".
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], NotPrimary))
