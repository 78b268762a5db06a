{{- /*
What the operator may do with datasets and their children: the same rules in all namespaces and in single ones. It never
reads Secrets: pods get the store's credentials by secretKeyRef.
*/ -}}
{{- define "diffugen.rules" -}}
- apiGroups: [diffugen.dev]
  resources: [labeleddatasets]
  # patch: our own finalizer, on datasets with deletionPolicy: Delete; nothing else of them is ever written.
  verbs: [get, list, watch, patch]
- apiGroups: [diffugen.dev]
  resources: [labeleddatasets/status]
  verbs: [patch]
# blockOwnerDeletion in the children's owner references needs this where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [diffugen.dev]
  resources: [labeleddatasets/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [create, get, list, watch, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# Work orders. No list: the operator knows the names of its own.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create, get, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- if .Values.rbac.kueue }}
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list, watch]
{{- end }}
{{- end -}}

{{- define "diffugen.leaderRules" -}}
# Creation cannot be granted by name.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "diffugen.fullname" . }}]
  verbs: [get, update]
{{- end -}}
