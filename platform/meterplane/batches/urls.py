"""Routes of files and batches, below `/v1/`."""

from django.urls import path

from meterplane.batches import views

app_name = "batches"

urlpatterns = [
    path("files", views.files, name="files"),
    path("files/<str:file_id>", views.file, name="file"),
    path("files/<str:file_id>/content", views.file_content, name="content"),
    path("batches", views.batches, name="batches"),
    path("batches/<str:batch_id>", views.batch, name="batch"),
    path("batches/<str:batch_id>/cancel", views.batch_cancel, name="cancel"),
    path("<path:path>", views.nowhere, name="nowhere"),
]
