# Every night: colour what is new, by a Flex Template that Cloud Scheduler launches.
#
# There is no google_dataflow_flex_template_job here: it would start a job at each `terraform apply` after the last one
# has ended.

locals {
  metadata = jsondecode(file("${path.module}/metadata.json")) # python -m infra.flex_template writes it
  model    = var.nightly.trained ? { model = "gs://${google_storage_bucket.this["training"].name}/pushed" } : {}
  gpu      = contains(keys(var.nightly.options), "gpu")

  launch = {
    launchParameter = {
      # Dataflow refuses a second job with this name while the first one runs.
      jobName              = "${local.name}-nightly"
      containerSpecGcsPath = "gs://${google_storage_bucket.this["templates"].name}/${google_storage_bucket_object.template.name}"
      parameters = merge(local.model, {
        input  = "gs://${google_storage_bucket.this["masters"].name}"
        output = "gs://${google_storage_bucket.this["derivatives"].name}/color"
      }, var.nightly.options)
      environment = merge({
        serviceAccountEmail  = google_service_account.this["worker"].email
        subnetwork           = "regions/${var.region}/subnetworks/${google_compute_subnetwork.this.name}"
        ipConfiguration      = "WORKER_IP_PRIVATE"
        sdkContainerImage    = "${local.registry}/worker${local.gpu ? "-gpu" : ""}:${var.image_tag}"
        tempLocation         = "gs://${google_storage_bucket.this["scratch"].name}/temp"
        stagingLocation      = "gs://${google_storage_bucket.this["scratch"].name}/staging"
        maxWorkers           = var.nightly.max_workers
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
  bucket       = google_storage_bucket.this["templates"].name
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
    uri         = "https://dataflow.googleapis.com/v1b3/projects/${var.project}/locations/${var.region}/flexTemplates:launch"
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
      condition     = length(setsubtract(keys(var.nightly.options), [for each in local.metadata.parameters : each.name])) == 0
      error_message = "nightly.options has an option that the template does not know; metadata.json lists them."
    }
  }

  depends_on = [google_project_service.this, google_service_account_iam_member.act_as]
}
