terraform {
  required_version = ">= 1.9"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.50, < 9" # checked against the schema of 6.50; nothing here was removed in 7 and 8
    }
  }

  # State in a bucket of your own, which this module does not make: terraform init -backend-config="bucket=..."
  backend "gcs" {
    prefix = "archive-colorize"
  }
}

provider "google" {
  project               = var.project
  region                = var.region
  billing_project       = var.project # the API of budgets wants a project that pays for its calls
  user_project_override = true
}
