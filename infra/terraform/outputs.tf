output "registry" {
  value       = local.registry
  description = "Where the images belong."
}

output "buckets" {
  value       = { for name, bucket in google_storage_bucket.this : name => "gs://${bucket.name}" }
  description = "Places of masters, derivatives and the rest."
}

output "accounts" {
  value       = { for name, account in google_service_account.this : name => account.email }
  description = "E-mail addresses of the service accounts."
}

output "launch_now" {
  value       = "gcloud scheduler jobs run ${local.name}-nightly --project=${var.project} --location=${var.region}"
  description = "Starts the nightly job at once, if it is not paused."
}
