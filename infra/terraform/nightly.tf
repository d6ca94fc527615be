# Every night: colour what is new, by a Flex Template that Cloud Scheduler launches.
#
# There is no google_dataflow_flex_template_job here: it would start a job at each `terraform apply` after the last one
# has ended.

locals {
  metadata = jsondecode(file("${path.module}/metadata.json")) # python -m infra.flex_template writes it
  model    = var.nightly.trained ? { model = "gs://${local.bucket.training}/pushed" } : {}
  gpu      = contains(keys(var.nightly.options), "gpu")
  api      = "https://dataflow.googleapis.com/v1b3/projects/${var.project}/locations/${var.region}"
  unknown  = setsubtract(keys(var.nightly.options), local.metadata.parameters[*].name)

  launch = {
    launchParameter = {
      # Dataflow refuses a second job with this name while the first one runs.
      jobName              = "${local.name}-nightly"
      containerSpecGcsPath = "gs://${local.bucket.templates}/${google_storage_bucket_object.template.name}"
      parameters = merge(local.model, {
        input  = "gs://${local.bucket.masters}"
        output = "gs://${local.bucket.derivatives}/color"
      }, var.nightly.options)
      environment = merge({
        serviceAccountEmail  = google_service_account.this["worker"].email
        subnetwork           = "regions/${var.region}/subnetworks/${google_compute_subnetwork.this.name}"
        ipConfiguration      = "WORKER_IP_PRIVATE"
        sdkContainerImage    = "${local.registry}/worker${local.gpu ? "-gpu" : ""}:${var.image_tag}"
        tempLocation         = "gs://${local.bucket.scratch}/temp"
        stagingLocation      = "gs://${local.bucket.scratch}/staging"
        maxWorkers           = var.nightly.max_workers
        diskSizeGb           = 60              # the image for GPUs is large
        launcherMachineType  = "e2-standard-2" # it loads the model once, to see whether it works
        additionalUserLabels = local.labels
        },
        local.gpu ? {} : { machineType = var.nightly.machine_type }, # the option gpu sets it
        var.kms_key == null ? {} : { kmsKeyName = var.kms_key },
      )
    }
  }
}

resource "google_storage_bucket_object" "template" {
  bucket       = local.bucket.templates
  name         = "${local.name}-${var.image_tag}.json"
  content_type = "application/json"
  content = jsonencode({
    image    = "${local.registry}/launcher:${var.image_tag}"
    sdkInfo  = { language = "PYTHON" }
    metadata = local.metadata
  })
}

resource "google_cloud_scheduler_job" "nightly" {
  name             = "${local.name}-nightly"
  description      = "Colourises what is new in the masters"
  region           = var.region
  schedule         = var.nightly.cron
  time_zone        = var.nightly.time_zone
  paused           = var.nightly.paused
  attempt_deadline = "180s"

  retry_config {
    retry_count = 0 # a launch whose answer was lost may have started a job
  }

  http_target {
    uri         = "${local.api}/flexTemplates:launch"
    http_method = "POST"
    headers     = { "Content-Type" = "application/json" }
    body        = base64encode(jsonencode(local.launch))

    oauth_token {
      service_account_email = google_service_account.this["launcher"].email
      scope                 = "https://www.googleapis.com/auth/cloud-platform"
    }
  }

  lifecycle {
    precondition {
      condition     = length(local.unknown) == 0
      error_message = "The template does not know nightly.options: ${join(", ", local.unknown)}. See metadata.json."
    }
  }

  depends_on = [google_project_service.this, google_service_account_iam_member.act_as]
}
