{{/* The name of everything: <release>-operator. */}}
{{- define "ragkube.name" -}}
{{- .Values.fullnameOverride | default (printf "%s-operator" .Release.Name) | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What selects the operator's pods; NetworkPolicies of managed Redis Clusters let the first label in. */}}
{{- define "ragkube.selector" -}}
app.kubernetes.io/name: ragkube-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ragkube.commonLabels" -}}
app.kubernetes.io/part-of: ragkube
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ragkube.labels" -}}
{{ include "ragkube.selector" . }}
{{ include "ragkube.commonLabels" . }}
{{- end -}}

{{/* repository[:tag][@digest]; dict "image" "root" */}}
{{- define "ragkube.image" -}}
{{- $tag := .image.tag | default .root.Chart.AppVersion -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{- define "ragkube.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "ragkube.name" .) }}
{{- else -}}
{{ required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{/* The namespaces that are served, one a line; in the mode without cluster rights the release's own when none is named. */}}
{{- define "ragkube.namespaces" -}}
{{- if .Values.watchNamespaces -}}
{{ join "\n" .Values.watchNamespaces }}
{{- else if eq .Values.rbac.scope "Namespaced" -}}
{{ .Release.Namespace }}
{{- end -}}
{{- end -}}
