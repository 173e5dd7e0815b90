"""What django-redis has beyond Django's cache API, with its names and arguments."""

from cachekit.integrations.django.extras.clients import Clients
from cachekit.integrations.django.extras.conditions import OVER, Conditions
from cachekit.integrations.django.extras.expiry import Expiry
from cachekit.integrations.django.extras.hashes import Hashes
from cachekit.integrations.django.extras.patterns import Patterns
from cachekit.integrations.django.extras.sets import Sets
from cachekit.integrations.django.extras.sorted_sets import SortedSets

__all__ = ["OVER", "Extras"]


class Extras(Conditions, Expiry, Patterns, Clients, Sets, Hashes, SortedSets):
    """All of it, for `CacheKitCache`."""
