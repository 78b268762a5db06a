"""`kubectl labeleddataset`: datasets of a cluster, read and steered by kubectl itself.

kubectl finds the plugin by its name and passes its arguments on. The plugin calls kubectl in return: so kubeconfig,
context, exec credentials and proxies are kubectl's business, and nothing of Kubernetes is imported here.
"""
