"""A project with three databases: two under Sluice in directories of their own, one beside it."""

import os

BASE = os.environ["TEST_DIR"]
SECRET_KEY = "tests"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "tests.shop.urls"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django_sluice",
    "tests.shop",
]
MIDDLEWARE = [
    "django_sluice.middleware.SluiceMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


def _database(name, engine="django_sluice.backends.sqlite3"):
    # Much longer than any test: a write that waits for the lock, instead of being refused, can't be overlooked.
    return {"ENGINE": engine, "NAME": os.path.join(BASE, name), "OPTIONS": {"timeout": 40}}


DATABASES = {
    "default": _database("main/app.db"),
    "second": _database("second/app.db"),
    "beside": _database("main/beside.db", "django.db.backends.sqlite3"),
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# The checks of this project's own models and templates take longer than the tests.
LOGGING_CONFIG = None
