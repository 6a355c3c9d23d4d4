"""Object stores: raw logs, prepared data, runs and bundles at `s3://BUCKET/PREFIX` and `gs://BUCKET/PREFIX`.

Stores have no rename and no directories. So a directory becomes visible by one object, `published.json`. It is written
last and lists all other objects with sizes and checksums; readers trust this list only.
"""

from tfrs_dlrm.stores.cache import forget_copy
from tfrs_dlrm.stores.errors import StoreError
from tfrs_dlrm.stores.listing import PUBLISHED_FILE, Listing, PublishedFile
from tfrs_dlrm.stores.mirror import Mirror, local_copy
from tfrs_dlrm.stores.publish import check_free, publish, unpublish, visible_files
from tfrs_dlrm.stores.remote_file import RemoteFile
from tfrs_dlrm.stores.store import Store, StoredObject
from tfrs_dlrm.stores.transfer import Progress
from tfrs_dlrm.stores.urls import StoreUrl, is_store_url, join, split_object

__all__ = [
    "PUBLISHED_FILE",
    "Listing",
    "Mirror",
    "Progress",
    "PublishedFile",
    "RemoteFile",
    "Store",
    "StoreError",
    "StoreUrl",
    "StoredObject",
    "check_free",
    "forget_copy",
    "is_store_url",
    "join",
    "local_copy",
    "publish",
    "split_object",
    "unpublish",
    "visible_files",
]
