# Alerts, a dashboard, a budget. Queries are PromQL; the counters are those of the job (namespace `colorize`).

locals {
  job      = "monitored_resource=\"dataflow_job\", job_name=\"${local.name}-nightly\""
  counter  = "dataflow_googleapis_com:job_user_counter"
  failed   = "${local.counter}{${local.job}, metric_name=\"failed\"}"
  outcomes = "${local.counter}{${local.job}, metric_name=~\"colorized|skipped|failed\"}"
  stages   = "${local.counter}{${local.job}, metric_name=~\"(open|infer|paint)_milliseconds_MEAN\"}"
  running  = "dataflow_googleapis_com:job_current_num_vcpus{${local.job}} > 0"
  elapsed  = "dataflow_googleapis_com:job_elapsed_time{${local.job}}"

  metric_alerts = {
    failures = {
      says  = "More than ${var.most_failures * 100} % of the scans failed. Their records are in dead_letters.jsonl."
      query = <<-EOT
        sum by (job_id) (${local.failed}) / sum by (job_id) (${local.outcomes}) > ${var.most_failures}
        and on (job_id) sum by (job_id) (${local.outcomes}) >= 100
      EOT
    }
    stalled = {
      says  = "The job has made no record for an hour, or runs for more than ${var.most_hours} hours."
      query = <<-EOT
        (
          sum by (job_id) (delta(${local.outcomes}[1h])) == 0 and on (job_id) max by (job_id) (${local.elapsed}) > 3600
          or max by (job_id) (${local.elapsed}) > ${var.most_hours * 3600}
        )
        and on (job_id) max by (job_id) (${local.running})
      EOT
    }
    failed = {
      says  = "The job failed. What is finished is kept; the next run continues."
      query = "max by (job_id) (dataflow_googleapis_com:job_is_failed{${local.job}}) > 0"
    }
  }

  log_alerts = {
    launch = {
      says   = "The nightly job was not launched: the one of the night before may still run."
      filter = <<-EOT
        resource.type="cloud_scheduler_job"
        resource.labels.job_id="${local.name}-nightly"
        severity>=ERROR
      EOT
    }
    rejected = {
      says   = "A run of the training pipeline pushed no model: a gate did not pass, or a stage failed."
      filter = <<-EOT
        log_id("aiplatform.googleapis.com/pipeline_job_events")
        jsonPayload.state="PIPELINE_STATE_FAILED"
      EOT
    }
  }

  tiles = {
    "Scans by outcome"        = "sum by (metric_name) (${local.outcomes})"
    "Failed scans by reason"  = "sum by (metric_name) (${local.counter}{${local.job}, metric_name=~\"reason_.*\"})"
    "Scans a second"          = "sum(rate(${local.outcomes}[5m]))"
    "Milliseconds of a stage" = "avg by (metric_name) (${local.stages})"
    "Confidence, %"           = "avg(${local.counter}{${local.job}, metric_name=\"confidence_percent_MEAN\"})"
    "Colourfulness"           = "avg(${local.counter}{${local.job}, metric_name=\"colorfulness_MEAN\"})"
    "Cores in use"            = "sum(${local.running})"
    "Seconds of the run"      = "max(${local.elapsed})"
  }
}

resource "google_monitoring_notification_channel" "email" {
  for_each = toset(var.alert_emails)

  display_name = each.value
  type         = "email"
  labels       = { email_address = each.value }

  depends_on = [google_project_service.this]
}

resource "google_monitoring_alert_policy" "metric" {
  for_each = local.metric_alerts

  display_name          = "${local.name}: ${each.key}"
  combiner              = "OR"
  notification_channels = values(google_monitoring_notification_channel.email)[*].id
  user_labels           = local.labels

  conditions {
    display_name = each.key

    condition_prometheus_query_language {
      query                     = each.value.query
      disable_metric_validation = true # the job's counters appear with its first run
      duration                  = "300s"
      evaluation_interval       = "60s"
    }
  }

  documentation {
    content   = each.value.says
    mime_type = "text/markdown"
  }

  depends_on = [google_project_service.this]
}

resource "google_monitoring_alert_policy" "log" {
  for_each = local.log_alerts

  display_name          = "${local.name}: ${each.key}"
  combiner              = "OR"
  notification_channels = values(google_monitoring_notification_channel.email)[*].id
  user_labels           = local.labels

  conditions {
    display_name = each.key

    condition_matched_log {
      filter = each.value.filter
    }
  }

  alert_strategy {
    auto_close = "604800s"

    notification_rate_limit {
      period = "3600s"
    }
  }

  documentation {
    content   = each.value.says
    mime_type = "text/markdown"
  }

  depends_on = [google_project_service.this]
}

resource "google_monitoring_dashboard" "this" {
  dashboard_json = jsonencode({
    displayName = "archive-colorize"
    mosaicLayout = {
      columns = 12
      tiles = [
        for index, title in keys(local.tiles) : {
          xPos   = index % 2 * 6
          yPos   = floor(index / 2) * 4
          width  = 6
          height = 4
          widget = {
            title = title
            xyChart = {
              dataSets = [{ plotType = "LINE", timeSeriesQuery = { prometheusQuery = local.tiles[title] } }]
            }
          }
        }
      ]
    }
  })

  depends_on = [google_project_service.this]
}

resource "google_billing_budget" "this" {
  count = var.billing_account == null ? 0 : 1

  billing_account = var.billing_account
  display_name    = "archive-colorize"

  budget_filter {
    projects = ["projects/${local.number}"]
  }

  amount {
    specified_amount {
      units = var.monthly_budget
    }
  }

  dynamic "threshold_rules" {
    for_each = [0.5, 0.9, 1]

    content {
      threshold_percent = threshold_rules.value
    }
  }

  all_updates_rule {
    monitoring_notification_channels = values(google_monitoring_notification_channel.email)[*].id
  }

  depends_on = [google_project_service.this]
}
