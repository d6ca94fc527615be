# Buckets and images.

locals {
  # The kept ones have versions, and what is deleted can be restored for `masters_undelete_days`.
  buckets = {
    masters     = { kept = true }  # grey scans
    photographs = { kept = true }  # colour photographs to learn from
    derivatives = { kept = false } # can be made again from the masters
    training    = { kept = false } # runs of the training pipeline, and pushed models
    templates   = { kept = true }  # what the nightly job consists of
    scratch     = { kept = false } # temporary
  }
}

resource "google_storage_bucket" "this" {
  # checkov:skip=CKV_GCP_62: Access logs in buckets are best-effort. Turn on the audit logs of data access instead.
  # checkov:skip=CKV_GCP_78: Versions are kept of what cannot be made again; the lease of a job is rewritten all night.
  for_each = local.buckets

  name                        = "${var.project}-${each.key}"
  location                    = var.region
  labels                      = local.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  versioning {
    enabled = each.value.kept
  }

  soft_delete_policy {
    # A retention policy ("bucket lock") cannot be had together with versions.
    retention_duration_seconds = 86400 * (each.value.kept ? var.masters_undelete_days : each.key == "scratch" ? 0 : 7)
  }

  dynamic "lifecycle_rule" {
    for_each = each.key == "scratch" ? [var.scratch_days] : []

    content {
      action {
        type = "Delete"
      }
      condition {
        age = lifecycle_rule.value
      }
    }
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 7
    }
  }

  dynamic "encryption" {
    for_each = var.kms_key[*]

    content {
      default_kms_key_name = encryption.value
    }
  }

  # Without force_destroy, `terraform destroy` refuses to delete a bucket that is not empty.
  force_destroy = each.key == "scratch"

  depends_on = [google_project_service.this, google_kms_crypto_key_iam_member.storing]
}

locals {
  bucket = { for key, made in google_storage_bucket.this : key => made.name }
}

resource "google_artifact_registry_repository" "images" {
  repository_id = local.name
  location      = var.region
  format        = "DOCKER"
  description   = "Images of archive-colorize"
  labels        = local.labels
  kms_key_name  = var.kms_key

  docker_config {
    immutable_tags = true
  }

  depends_on = [google_project_service.this, google_kms_crypto_key_iam_member.storing]
}
