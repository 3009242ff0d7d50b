"""The ragkube control plane: reconciles RagDeployment resources."""
