"""The test cluster: kind where Docker answers, a given kubeconfig, or Kubernetes built from its published modules."""
