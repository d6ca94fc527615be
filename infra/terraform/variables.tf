variable "project" {
  type        = string
  description = "ID of the project, which exists and has billing."

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "A project ID has 6 to 30 lower-case letters, digits and hyphens."
  }
}

variable "region" {
  type        = string
  description = "Region of buckets, images, jobs and schedules, for example europe-west4. Choose one that has your GPU."
}

variable "image_tag" {
  type        = string
  description = "Tag of the images in the registry, for example 0.1.0. A tag is never moved to another image."

  validation {
    condition     = can(regex("^[0-9A-Za-z_][0-9A-Za-z_.-]{0,127}$", var.image_tag)) && var.image_tag != "latest"
    error_message = "Name the tag of one build, for example 0.1.0; latest says nothing about what runs."
  }
}

variable "kms_key" {
  type        = string
  default     = null
  description = "A key of your own for everything that is stored: projects/P/locations/REGION/keyRings/R/cryptoKeys/K."

  validation {
    condition = var.kms_key == null || can(regex(
      "^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$", var.kms_key
    ))
    error_message = "Write projects/P/locations/REGION/keyRings/R/cryptoKeys/K."
  }
}

variable "masters_undelete_days" {
  type        = number
  default     = 90
  description = "How long a deleted or replaced master or photograph can be restored, 7 to 90 days."

  validation {
    condition     = var.masters_undelete_days >= 7 && var.masters_undelete_days <= 90
    error_message = "Cloud Storage keeps deleted objects for 7 to 90 days."
  }
}

variable "scratch_days" {
  type        = number
  default     = 14
  description = "Age in days at which temporary objects are deleted. It must be longer than any job."
}

variable "nightly" {
  type = object({
    cron         = optional(string, "0 1 * * *")
    time_zone    = optional(string, "Etc/UTC")
    paused       = optional(bool, true)
    max_workers  = optional(number, 4)
    machine_type = optional(string, "n2-standard-8") # without a GPU
    trained      = optional(bool, false)
    options      = optional(map(string), {})
  })
  default     = {}
  description = <<-EOT
    The colourisation of what is new. It is paused until you set `paused` to false. `trained` takes the current model of
    the training pipeline instead of the shipped one. `options` are options of the job, such as
    { gpu = "l4", strength = "0.8" }.
  EOT
}

variable "alert_emails" {
  type        = list(string)
  default     = []
  description = "Who is told that something is wrong."
}

variable "most_failures" {
  type        = number
  default     = 0.05
  description = "Share of failed scans, 0 to 1, above which there is an alert."
}

variable "most_hours" {
  type        = number
  default     = 12
  description = "Hours after which a job is taken for stalled, as it is after one hour without any record."
}

variable "billing_account" {
  type        = string
  default     = null
  description = "Billing account of the project, for the budget. Without it there is none."
}

variable "monthly_budget" {
  type        = number
  default     = 100
  description = "Budget for a month, in the currency of the billing account. It warns and stops nothing."
}
