from django.db import models


class Visit(models.Model):
    name = models.CharField(max_length=40, unique=True)
