# A network without addresses on the internet. Machines reach Google's services, and nothing else.

resource "google_compute_network" "this" {
  name                    = local.name
  auto_create_subnetworks = false

  depends_on = [google_project_service.this]
}

resource "google_compute_subnetwork" "this" {
  name                     = local.name
  network                  = google_compute_network.this.id
  region                   = var.region
  ip_cidr_range            = "10.20.0.0/20"
  private_ip_google_access = true

  log_config {
    aggregation_interval = "INTERVAL_10_MIN"
    flow_sampling        = 0.1
    metadata             = "EXCLUDE_ALL_METADATA"
  }
}

# Workers of one job talk to each other; Dataflow gives them this tag.
resource "google_compute_firewall" "workers" {
  name        = "${local.name}-workers"
  network     = google_compute_network.this.id
  source_tags = ["dataflow"]
  target_tags = ["dataflow"]

  allow {
    protocol = "tcp"
    ports    = ["12345-12346"]
  }
}
