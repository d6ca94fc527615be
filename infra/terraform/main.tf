# Names, and the services that the rest needs.

data "google_project" "this" {
  project_id = var.project
}

locals {
  name     = "colorize"
  labels   = { application = "archive-colorize" }
  registry = "${var.region}-docker.pkg.dev/${var.project}/${local.name}"
  number   = data.google_project.this.number

  services = [
    "aiplatform.googleapis.com",
    "artifactregistry.googleapis.com",
    "billingbudgets.googleapis.com",
    "cloudscheduler.googleapis.com",
    "compute.googleapis.com",
    "dataflow.googleapis.com",
    "iam.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "storage.googleapis.com",
  ]
}

resource "google_project_service" "this" {
  for_each = toset(local.services)

  project            = var.project
  service            = each.value
  disable_on_destroy = false # others may use it
}

# With a key of your own, the services that store something for us must be able to use it.
data "google_storage_project_service_account" "this" {
  project = var.project
}

locals {
  storing = {
    storage  = data.google_storage_project_service_account.this.email_address
    registry = "service-${local.number}@gcp-sa-artifactregistry.iam.gserviceaccount.com"
    dataflow = "service-${local.number}@dataflow-service-producer-prod.iam.gserviceaccount.com"
    compute  = "service-${local.number}@compute-system.iam.gserviceaccount.com"
    vertex   = "service-${local.number}@gcp-sa-aiplatform.iam.gserviceaccount.com"
  }
}

resource "google_kms_crypto_key_iam_member" "storing" {
  for_each = var.kms_key == null ? {} : local.storing

  crypto_key_id = var.kms_key
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:${each.value}"

  depends_on = [google_project_service.this]
}
