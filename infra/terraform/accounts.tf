# Three accounts, each with what it needs and no more:
#   worker    the machines of a job: reads masters, writes derivatives
#   launcher  Cloud Scheduler: starts jobs, and sees no picture
#   training  Vertex AI: reads photographs, writes runs and pushed models

locals {
  accounts = {
    worker   = "Colourises scans"
    launcher = "Starts the nightly colourisation"
    training = "Trains and pushes models"
  }

  # (account, bucket) -> role
  access = {
    "worker masters"       = "roles/storage.objectViewer"
    "worker training"      = "roles/storage.objectViewer" # pushed models
    "worker derivatives"   = "roles/storage.objectUser"
    "worker scratch"       = "roles/storage.objectUser"
    "launcher templates"   = "roles/storage.objectViewer"
    "training photographs" = "roles/storage.objectViewer"
    "training training"    = "roles/storage.objectUser"
    "training scratch"     = "roles/storage.objectUser"
  }

  # Dataflow's role for workers can create objects in every bucket of the project. It must not, in those that are read.
  read_only = {
    worker   = ["masters", "photographs", "training", "templates"]
    training = ["masters", "photographs", "templates", "derivatives"]
  }
}

resource "google_service_account" "this" {
  for_each = local.accounts

  account_id   = "${local.name}-${each.key}"
  display_name = each.value

  depends_on = [google_project_service.this]
}

resource "google_storage_bucket_iam_member" "this" {
  for_each = local.access

  bucket = local.bucket[split(" ", each.key)[1]]
  role   = each.value
  member = google_service_account.this[split(" ", each.key)[0]].member
}

resource "google_artifact_registry_repository_iam_member" "reader" {
  for_each = toset(["worker", "training"])

  repository = google_artifact_registry_repository.images.name
  location   = google_artifact_registry_repository.images.location
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.this[each.key].member
}

resource "google_project_iam_member" "dataflow_worker" {
  for_each = local.read_only

  project = var.project
  role    = "roles/dataflow.worker"
  member  = google_service_account.this[each.key].member

  condition {
    title       = "not in buckets that are read only"
    description = "Objects there are read by roles on the buckets."
    expression = join(" && ", [
      for key in each.value : "!resource.name.startsWith('projects/_/buckets/${local.bucket[key]}')"
    ])
  }
}

resource "google_project_iam_member" "dataflow_developer" {
  # checkov:skip=CKV_GCP_49: A job runs as an account for which `act_as` below was granted, and as no other.
  for_each = toset(["launcher", "training"]) # who starts jobs

  project = var.project
  role    = "roles/dataflow.developer"
  member  = google_service_account.this[each.key].member
}

resource "google_project_iam_member" "vertex_user" {
  project = var.project
  role    = "roles/aiplatform.user"
  member  = google_service_account.this["training"].member
}

# Who starts jobs must be allowed to let them run as another account.
resource "google_service_account_iam_member" "act_as" {
  for_each = { launcher = "worker", training = "training" }

  service_account_id = google_service_account.this[each.value].name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.this[each.key].member
}
