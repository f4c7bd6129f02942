import json

from django.db import transaction
from django.db.models import F
from django.http import HttpResponseNotAllowed, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt

from .models import Entry, Total


def home(request):
    """Counts the visits of a browser in its session, which Django keeps in the database."""
    visits = request.session.get("visits", 0) + 1
    request.session["visits"] = visits
    return JsonResponse({"visits": visits})


@csrf_exempt
def create(request):
    """POST {"key": K, "value": V}: stores the entry, 201 once it is committed. The same key again replaces the value."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    entry = json.loads(request.body)
    with transaction.atomic():
        _, new = Entry.objects.update_or_create(key=entry["key"], defaults={"value": entry["value"]})
        if new:
            Total.objects.get_or_create(name="all")
            Total.objects.filter(name="all").update(entries=F("entries") + 1)
    return JsonResponse(entry, status=201)


def show(request, key):
    entry = get_object_or_404(Entry, key=key)
    return JsonResponse({"key": entry.key, "value": entry.value})


def totals(request):
    total = Total.objects.filter(name="all").first()
    return JsonResponse({"entries": Entry.objects.count(), "total": total.entries if total else 0})
