{{- define "diffugen.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "diffugen.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "diffugen.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{ include "diffugen.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: diffugen
{{- end -}}

{{- define "diffugen.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "diffugen.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: name the service account, as serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* An image's whole reference. Takes a list: the root, the image's values. */ -}}
{{- define "diffugen.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $path := $image.repository -}}
{{- if $root.Values.image.registry -}}{{- $path = printf "%s/%s" $root.Values.image.registry $path -}}{{- end -}}
{{- include "diffugen.reference" (list $root $path $image) -}}
{{- end -}}

{{- define "diffugen.reference" -}}
{{- $root := index . 0 -}}
{{- $path := index . 1 -}}
{{- $image := index . 2 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $path $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $path (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* The namespaces that are served, as a YAML list; none where all are. */ -}}
{{- define "diffugen.namespaces" -}}
{{- if .Values.clusterWide -}}
[]
{{- else -}}
{{- default (list .Release.Namespace) .Values.namespaces | uniq | toJson -}}
{{- end -}}
{{- end -}}

{{- define "diffugen.minio" -}}
{{- printf "%s-minio" (include "diffugen.fullname" .) -}}
{{- end -}}
