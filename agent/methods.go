// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/casemate/casemate/agent/api/kata"
)

const (
	agentService  = "grpc.AgentService"
	healthService = "grpc.Health"
)

// access says how a served method is guarded.
type access int

const (
	asked  access = iota // behind the door: the policy is asked
	always               // answered at any time, also when the guest is parked
)

// served lists the methods that have a handler.
func served() map[string]access {
	return map[string]access{
		healthService + "/Check":                         always,
		agentService + "/CopyFile":                       asked,
		agentService + "/ExecProcess":                    asked,
		agentService + "/GetVolumeStats":                 asked,
		agentService + "/GetDiagnosticData":              asked,
		healthService + "/Version":                       always,
		agentService + "/AddARPNeighbors":                asked,
		agentService + "/CloseStdin":                     asked,
		agentService + "/CreateContainer":                asked,
		agentService + "/CreateSandbox":                  asked,
		agentService + "/DestroySandbox":                 asked,
		agentService + "/GetGuestDetails":                asked,
		agentService + "/GetOOMEvent":                    asked,
		agentService + "/ListInterfaces":                 asked,
		agentService + "/ListRoutes":                     asked,
		agentService + "/OnlineCPUMem":                   asked,
		agentService + "/PauseContainer":                 asked,
		agentService + "/ReadStderr":                     asked,
		agentService + "/ReadStdout":                     asked,
		agentService + "/RemoveContainer":                asked,
		agentService + "/RemoveStaleVirtiofsShareMounts": asked,
		agentService + "/ResumeContainer":                asked,
		agentService + "/SignalProcess":                  asked,
		agentService + "/StartContainer":                 asked,
		agentService + "/StatsContainer":                 asked,
		agentService + "/TtyWinResize":                   asked,
		agentService + "/UpdateContainer":                asked,
		agentService + "/UpdateInterface":                asked,
		agentService + "/UpdateRoutes":                   asked,
		agentService + "/WaitProcess":                    asked,
		agentService + "/WriteStdin":                     asked,
	}
}

// refused lists every other method of the API with the reason that the host reads once the door is open. A method
// that stands in neither table, or in both, is a failing test: a new method cannot be served by accident.
func refused() map[string]Reason {
	var (
		notServed  = Reason{"not-served", "this agent does not serve the request"}
		hostClock  = Reason{"host-clock", "the host's clock makes nothing valid in this guest"}
		hostRandom = Reason{"host-entropy", "the host's randomness is not mixed into this guest's"}
		hostMemory = Reason{"host-memory", "memory and swap are not added at the host's word"}
		hostFilter = Reason{"host-filter", "the packet filter is not the host's"}
		hostPolicy = Reason{"host-policy", "a policy comes with initdata only"}
	)
	return map[string]Reason{
		agentService + "/AddSwap":               hostMemory,
		agentService + "/AddSwapPath":           hostMemory,
		agentService + "/GetIPTables":           hostFilter,
		agentService + "/GetMetrics":            notServed,
		agentService + "/MemAgentCompactSet":    hostMemory,
		agentService + "/MemAgentMemcgSet":      hostMemory,
		agentService + "/MemHotplugByProbe":     hostMemory,
		agentService + "/ReseedRandomDev":       hostRandom,
		agentService + "/ResizeVolume":          notServed,
		agentService + "/SetGuestDateTime":      hostClock,
		agentService + "/SetIPTables":           hostFilter,
		agentService + "/SetPolicy":             hostPolicy,
		agentService + "/UpdateEphemeralMounts": notServed,
	}
}

// method is one row of the gate.
type method struct {
	request string // name of the request message
	served  bool
	access  access // when served
	reason  Reason // when not
}

// methods joins the two tables with the generated descriptors, keyed by "service/method". A method that only one
// side knows is left out and thereby unreachable.
func methods() map[string]method {
	open, shut := served(), refused()
	table := make(map[string]method)
	for _, service := range services() {
		list := service.Methods()
		for i := range list.Len() {
			name := string(service.FullName()) + "/" + string(list.Get(i).Name())
			request := string(list.Get(i).Input().Name())
			if reason, ok := shut[name]; ok {
				table[name] = method{request: request, reason: reason}
			} else if a, ok := open[name]; ok {
				table[name] = method{request: request, served: true, access: a}
			}
		}
	}
	return table
}

// services returns the descriptors of everything that this package registers.
func services() []protoreflect.ServiceDescriptor {
	return []protoreflect.ServiceDescriptor{
		kata.File_agent_api_kata_agent_proto.Services().ByName("AgentService"),
		kata.File_agent_api_kata_health_proto.Services().ByName("Health"),
	}
}
