# Everything here runs without Google Cloud: terraform test

mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
  mock_data "google_storage_project_service_account" {
    defaults = { email_address = "service-123456789012@gs-project-accounts.iam.gserviceaccount.com" }
  }
  mock_resource "google_service_account" {
    defaults = {
      email  = "somebody@museum-1234.iam.gserviceaccount.com"
      member = "serviceAccount:somebody@museum-1234.iam.gserviceaccount.com"
      name   = "projects/museum-1234/serviceAccounts/somebody@museum-1234.iam.gserviceaccount.com"
    }
  }
}

variables {
  project   = "museum-1234"
  region    = "europe-west4"
  image_tag = "0.1.0"
}

run "masters_are_kept_and_read_only" {
  assert {
    condition     = google_storage_bucket.this["masters"].versioning[0].enabled
    error_message = "masters have no versions"
  }
  assert {
    condition     = google_storage_bucket.this["masters"].soft_delete_policy[0].retention_duration_seconds == 90 * 86400
    error_message = "deleted masters cannot be restored"
  }
  assert {
    condition = [
      for access, member in google_storage_bucket_iam_member.this : member.role if endswith(access, " masters")
    ] == ["roles/storage.objectViewer"]
    error_message = "somebody may write to masters"
  }
  assert {
    condition = alltrue([
      for member in google_project_iam_member.dataflow_worker :
      strcontains(member.condition[0].expression, "!resource.name.startsWith('projects/_/buckets/museum-1234-masters')")
    ])
    error_message = "Dataflow's role for workers may create objects among the masters"
  }
  assert {
    condition = alltrue([
      for bucket in google_storage_bucket.this :
      bucket.uniform_bucket_level_access && bucket.public_access_prevention == "enforced"
    ])
    error_message = "a bucket may become public"
  }
  assert {
    condition     = [for name, bucket in google_storage_bucket.this : name if bucket.force_destroy] == ["scratch"]
    error_message = "terraform destroy would delete what is not scratch"
  }
}

run "scratch_is_deleted_after_some_days" {
  assert {
    condition = {
      for name, bucket in google_storage_bucket.this : name => [
        for rule in bucket.lifecycle_rule : rule.condition[0].age if rule.action[0].type == "Delete"
      ]
      if anytrue([for rule in bucket.lifecycle_rule : rule.action[0].type == "Delete"])
    } == { scratch = [14] }
    error_message = "objects of other buckets are deleted, or those of scratch are not"
  }
}

run "the_nightly_job_is_launched_once_and_privately" {
  assert {
    condition = (
      google_cloud_scheduler_job.nightly.retry_config[0].retry_count == 0
      && google_cloud_scheduler_job.nightly.paused
      && google_cloud_scheduler_job.nightly.http_target[0].http_method == "POST"
    )
    error_message = "a launch is repeated, or runs before anybody has tried it"
  }
  assert {
    condition     = google_compute_subnetwork.this.private_ip_google_access && !google_compute_network.this.auto_create_subnetworks
    error_message = "machines without public addresses do not reach Google's services"
  }
  assert {
    condition = jsondecode(base64decode(google_cloud_scheduler_job.nightly.http_target[0].body)) == {
      launchParameter = {
        jobName              = "colorize-nightly"
        containerSpecGcsPath = "gs://museum-1234-templates/colorize-0.1.0.json"
        parameters = {
          input  = "gs://museum-1234-masters"
          output = "gs://museum-1234-derivatives/color"
        }
        environment = {
          serviceAccountEmail  = "somebody@museum-1234.iam.gserviceaccount.com"
          subnetwork           = "regions/europe-west4/subnetworks/colorize"
          ipConfiguration      = "WORKER_IP_PRIVATE"
          sdkContainerImage    = "europe-west4-docker.pkg.dev/museum-1234/colorize/worker:0.1.0"
          tempLocation         = "gs://museum-1234-scratch/temp"
          stagingLocation      = "gs://museum-1234-scratch/staging"
          maxWorkers           = 4
          diskSizeGb           = 60
          machineType          = "n2-standard-8"
          launcherMachineType  = "e2-standard-2"
          additionalUserLabels = { application = "archive-colorize" }
        }
      }
    }
    error_message = "the launch is another one"
  }
  assert {
    condition     = jsondecode(google_storage_bucket_object.template.content).image == "europe-west4-docker.pkg.dev/museum-1234/colorize/launcher:0.1.0"
    error_message = "the template names another image"
  }
}

run "a_gpu_and_the_trained_model" {
  variables {
    nightly = { trained = true, options = { gpu = "l4", strength = "0.8" } }
  }
  assert {
    condition = jsondecode(base64decode(google_cloud_scheduler_job.nightly.http_target[0].body)).launchParameter.parameters == {
      input    = "gs://museum-1234-masters"
      output   = "gs://museum-1234-derivatives/color"
      model    = "gs://museum-1234-training/pushed"
      gpu      = "l4"
      strength = "0.8"
    }
    error_message = "options are lost"
  }
  assert {
    condition = !contains(
      keys(jsondecode(base64decode(google_cloud_scheduler_job.nightly.http_target[0].body)).launchParameter.environment),
      "machineType",
    )
    error_message = "the machine type contradicts the GPU"
  }
}

run "without_a_key_google_encrypts" {
  assert {
    condition     = alltrue([for bucket in google_storage_bucket.this : length(bucket.encryption) == 0])
    error_message = "a key appears from nowhere"
  }
}

run "with_a_key_everything_is_encrypted_with_it" {
  variables {
    kms_key = "projects/keys-1/locations/europe-west4/keyRings/museum/cryptoKeys/archive"
  }
  assert {
    condition = (
      alltrue([for bucket in google_storage_bucket.this : bucket.encryption[0].default_kms_key_name == var.kms_key])
      && google_artifact_registry_repository.images.kms_key_name == var.kms_key
      && jsondecode(base64decode(google_cloud_scheduler_job.nightly.http_target[0].body)).launchParameter.environment.kmsKeyName == var.kms_key
    )
    error_message = "something is stored without the key"
  }
  assert {
    condition     = length(google_kms_crypto_key_iam_member.storing) == 5
    error_message = "a service may not use the key"
  }
}

run "there_is_a_budget_with_a_billing_account_only" {
  assert {
    condition     = length(google_billing_budget.this) == 0
    error_message = "a budget without an account"
  }
}

run "the_budget" {
  variables {
    billing_account = "000000-000000-000000"
    alert_emails    = ["archive@museum.example"]
  }
  assert {
    condition = (
      google_billing_budget.this[0].amount[0].specified_amount[0].units == "100"
      && length(google_billing_budget.this[0].all_updates_rule[0].monitoring_notification_channels) == 1
    )
    error_message = "the budget tells nobody"
  }
}

run "an_unknown_option_of_the_job_is_refused" {
  command = plan
  variables {
    nightly = { options = { strenght = "0.8" } }
  }
  expect_failures = [google_cloud_scheduler_job.nightly]
}

run "a_moving_tag_is_refused" {
  command = plan
  variables {
    image_tag = "latest"
  }
  expect_failures = [var.image_tag]
}

run "a_malformed_key_is_refused" {
  command = plan
  variables {
    kms_key = "archive"
  }
  expect_failures = [var.kms_key]
}
