from django.db import models


class Entry(models.Model):
    key = models.CharField(max_length=100, unique=True)
    value = models.TextField()
    created = models.DateTimeField(auto_now_add=True)


class Total(models.Model):
    """Kept with every entry, in one transaction: the number of entries is always what stands here."""

    name = models.CharField(max_length=20, primary_key=True)
    entries = models.PositiveBigIntegerField(default=0)
