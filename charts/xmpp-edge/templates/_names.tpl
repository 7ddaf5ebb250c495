{{- define "xmpp-edge.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "xmpp-edge.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $name = .Release.Name -}}
{{- if not (contains (include "xmpp-edge.name" .) $name) -}}
{{- $name = printf "%s-%s" $name (include "xmpp-edge.name" .) -}}
{{- end -}}
{{- end -}}
{{- /* A release may have a dot in its name and a digit first; a Service, which is called after it, may not. */ -}}
{{- $name = regexReplaceAll "^([0-9])" (replace "." "-" $name) "x${1}" -}}
{{- regexReplaceAll "-+$" (trunc 50 $name) "" -}}
{{- end -}}

{{/* What selects the pods of a component: (list root component). */}}
{{- define "xmpp-edge.selectorOf" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "xmpp-edge.name" $root | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "xmpp-edge.selector" -}}
{{ include "xmpp-edge.selectorOf" (list . "operator") }}
{{- end -}}

{{/* Labels of a component's objects: (list root component), with further ones behind: (list root component labels). */}}
{{- define "xmpp-edge.labelsOf" -}}
{{- $root := index . 0 -}}
{{ include "xmpp-edge.selectorOf" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: xmpp-edge
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- $more := $root.Values.commonLabels | default dict }}
{{- if gt (len .) 2 }}
{{- $more = merge (dict) (index . 2 | default dict) $more }}
{{- end }}
{{- /* What they must not change is left to the chart. */}}
{{- with omit $more "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/part-of" "app.kubernetes.io/managed-by" "helm.sh/chart" }}
{{ toYaml . }}
{{- end -}}
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

{{/* The reference of an image: (list registry repository tag digest). */}}
{{- define "xmpp-edge.reference" -}}
{{- $name := index . 1 -}}
{{- with index . 0 -}}{{- $name = printf "%s/%s" (trimSuffix "/" .) $name -}}{{- end -}}
{{- if index . 3 -}}
{{- printf "%s@%s" $name (index . 3) -}}
{{- else -}}
{{- printf "%s:%s" $name (index . 2) -}}
{{- end -}}
{{- end -}}

{{- define "xmpp-edge.registry" -}}
{{- .Values.image.registry | default (.Values.global | default dict).imageRegistry | default "" -}}
{{- end -}}

{{- define "xmpp-edge.image" -}}
{{- $image := .Values.image -}}
{{- include "xmpp-edge.reference" (list (include "xmpp-edge.registry" .) $image.repository (default .Chart.AppVersion $image.tag) $image.digest) -}}
{{- end -}}

{{/* The proxies' image: what it does not say is as with the operator's, but a digest, which is of one image. */}}
{{- define "xmpp-edge.proxyImage" -}}
{{- $proxy := .Values.proxyImage -}}
{{- $registry := default (include "xmpp-edge.registry" .) $proxy.registry -}}
{{- $beside := regexReplaceAll "[^/]+$" .Values.image.repository "xmpp-edge-proxy" -}}
{{- $tag := default (default .Chart.AppVersion (regexReplaceAll "@.*$" (default "" .Values.image.tag) "")) $proxy.tag -}}
{{- include "xmpp-edge.reference" (list $registry (default $beside $proxy.repository) $tag $proxy.digest) -}}
{{- end -}}

{{/* Names of pull Secrets, those of the chart before the global ones, as a JSON list of objects. */}}
{{- define "xmpp-edge.pullSecrets" -}}
{{- $all := list -}}
{{- $shared := (.Values.global | default dict).imagePullSecrets | default list -}}
{{- if kindIs "string" $shared -}}{{- $shared = list $shared -}}{{- end -}}
{{- range concat (.Values.imagePullSecrets | default list) $shared -}}
{{- if kindIs "string" . -}}{{- $all = append $all (dict "name" .) -}}{{- else -}}{{- $all = append $all . -}}{{- end -}}
{{- end -}}
{{- uniq $all | toJson -}}
{{- end -}}

{{/* The watched namespaces, as a JSON list; unused where clusterWide. */}}
{{- define "xmpp-edge.namespaces" -}}
{{- if .Values.watchNamespaces -}}
{{- .Values.watchNamespaces | sortAlpha | toJson -}}
{{- else -}}
{{- list .Release.Namespace | toJson -}}
{{- end -}}
{{- end -}}
