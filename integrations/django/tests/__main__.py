"""Runs the tests: ``python -m tests`` with Django in the environment and ``src`` on the path."""

import os
import shutil
import sys
import tempfile
import unittest

base = tempfile.mkdtemp(prefix="django-sluice-")
try:
    os.environ["TEST_DIR"] = base
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    for folder in ("main", "second"):
        os.mkdir(os.path.join(base, folder))

    import django
    from django.core.management import call_command
    from django.db import connections
    from django.test.utils import setup_test_environment

    django.setup()
    setup_test_environment()
    for alias in connections:
        call_command("migrate", database=alias, verbosity=0)
        with connections[alias].cursor() as cursor:
            # As Sluice keeps databases.
            cursor.execute("PRAGMA journal_mode = WAL")
    names = sys.argv[1:]
    loader = unittest.defaultTestLoader
    suite = loader.loadTestsFromNames(names) if names else loader.discover("tests", top_level_dir=".")
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    print(f"Django {django.get_version()}, Python {sys.version.split()[0]}: {result.testsRun} tests")
    sys.exit(0 if result.wasSuccessful() and result.testsRun > 0 else 1)
finally:
    shutil.rmtree(base)
