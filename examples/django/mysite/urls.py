from django.contrib import admin
from django.urls import path
from ledger import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", views.home),
    path("entries", views.create),
    path("entries/<str:key>", views.show),
    path("totals", views.totals),
]
