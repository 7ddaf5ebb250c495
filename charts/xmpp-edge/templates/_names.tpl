{{- define "xmpp-edge.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "xmpp-edge.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "xmpp-edge.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "xmpp-edge.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods of a component: (list root component). */}}
{{- define "xmpp-edge.selectorOf" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "xmpp-edge.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "xmpp-edge.selector" -}}
{{ include "xmpp-edge.selectorOf" (list . "operator") }}
{{- end -}}

{{/* Labels of a component's objects: (list root component). */}}
{{- define "xmpp-edge.labelsOf" -}}
{{- $root := index . 0 -}}
{{ include "xmpp-edge.selectorOf" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: xmpp-edge
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "xmpp-edge.labels" -}}
{{ include "xmpp-edge.labelsOf" (list . "operator") }}
{{- end -}}

{{- define "xmpp-edge.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "xmpp-edge.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name must be set where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The reference of an image: (list root image). */}}
{{- define "xmpp-edge.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The watched namespaces, as a JSON list; unused where clusterWide. */}}
{{- define "xmpp-edge.namespaces" -}}
{{- if .Values.watchNamespaces -}}
{{- .Values.watchNamespaces | sortAlpha | toJson -}}
{{- else -}}
{{- list .Release.Namespace | toJson -}}
{{- end -}}
{{- end -}}
