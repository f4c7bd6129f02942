from django.contrib import admin
from django.urls import path

from . import views

VIEWS = (
    "read read_async write write_async write_swallowed write_swallowed_async swallowed_in_atomic swallowed_in_sql savepoints "
    "reads_in_atomic through_signal session log_in second beside temporary stream stream_async pays commits_then_demoted"
).split()

urlpatterns = [path(name, getattr(views, name)) for name in VIEWS]
urlpatterns += [path("pays_class", views.Pays.as_view()), path("admin/", admin.site.urls)]
