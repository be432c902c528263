"""A synthetic C-CDA document: one problem and one laboratory result of nobody."""

_DOCUMENT = """<?xml version="1.0" encoding="UTF-8"?>
<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<realmCode code="US"/>
<typeId root="2.16.840.1.113883.1.3" extension="POCD_HD000040"/>
<templateId root="{HL7}.1.1" extension="2015-08-01"/>
<templateId root="{HL7}.1.2" extension="2015-08-01"/>
<id root="2.16.840.1.113883.19.5" extension="doc-1"/>
<code code="34133-9" codeSystem="{LOINC}" displayName="Summarization of Episode Note"/>
<title>Continuity of Care Document</title>
<effectiveTime value="20200301101500-0500"/>
<confidentialityCode code="N" codeSystem="2.16.840.1.113883.5.25"/>
<languageCode code="en-US"/>
<recordTarget><patientRole>
  <id root="2.16.840.1.113883.19.5" extension="p-1"/>
  <addr><city>Testville</city></addr>
  <telecom nullFlavor="UNK"/>
  <patient>
    <name><given>Nemo</given><family>Nobody</family></name>
    <administrativeGenderCode code="F" codeSystem="2.16.840.1.113883.5.1"/>
    <birthTime value="19610402"/>
  </patient>
</patientRole></recordTarget>
<author><time value="20200301"/><assignedAuthor>
  <id root="2.16.840.1.113883.4.6" extension="1234567893"/>
  <addr nullFlavor="UNK"/><telecom nullFlavor="UNK"/>
  <assignedPerson><name><given>A</given><family>Author</family></name></assignedPerson>
</assignedAuthor></author>
<custodian><assignedCustodian><representedCustodianOrganization>
  <id root="2.16.840.1.113883.4.6" extension="99"/>
  <name>Clinic</name><telecom nullFlavor="UNK"/><addr nullFlavor="UNK"/>
</representedCustodianOrganization></assignedCustodian></custodian>
<component><structuredBody>
<component><section>
  <templateId root="{HL7}.2.5.1" extension="2015-08-01"/>
  <code code="11450-4" codeSystem="{LOINC}" displayName="Problem List"/>
  <title>Problems</title><text>Asthma since 2010</text>
  <entry><act classCode="ACT" moodCode="EVN">
    <templateId root="{HL7}.4.3" extension="2015-08-01"/>
    <id root="1.2.3" extension="act1"/>
    <code code="CONC" codeSystem="2.16.840.1.113883.5.6"/>
    <statusCode code="active"/>
    <effectiveTime><low value="20100105"/></effectiveTime>
    <entryRelationship typeCode="SUBJ"><observation classCode="OBS" moodCode="EVN">
      <templateId root="{HL7}.4.4" extension="2015-08-01"/>
      <id root="1.2.3" extension="obs1"/>
      <code code="55607006" codeSystem="{SNOMED}" displayName="Problem"/>
      <statusCode code="completed"/>
      <effectiveTime><low value="20100105"/></effectiveTime>
      <value xsi:type="CD" code="195967001" codeSystem="{SNOMED}" displayName="Asthma"/>
    </observation></entryRelationship>
  </act></entry>
</section></component>
<component><section>
  <templateId root="{HL7}.2.3.1" extension="2015-08-01"/>
  <code code="30954-2" codeSystem="{LOINC}" displayName="Results"/>
  <title>Results</title><text>Hemoglobin low</text>
  <entry><organizer classCode="BATTERY" moodCode="EVN">
    <templateId root="{HL7}.4.1" extension="2015-08-01"/>
    <id root="1.2.3" extension="org1"/>
    <code code="58410-2" codeSystem="{LOINC}" displayName="CBC panel"/>
    <statusCode code="completed"/>
    <effectiveTime><low value="20200301101500-0500"/></effectiveTime>
    <component><observation classCode="OBS" moodCode="EVN">
      <templateId root="{HL7}.4.2" extension="2015-08-01"/>
      <id root="1.2.3" extension="hb1"/>
      <code code="718-7" codeSystem="{LOINC}" displayName="Hemoglobin"/>
      <statusCode code="completed"/>
      <effectiveTime value="20200301101500-0500"/>
      <value xsi:type="PQ" value="9.1" unit="g/dL"/>
      <interpretationCode code="L" codeSystem="2.16.840.1.113883.5.83"/>
      <referenceRange><observationRange><value xsi:type="IVL_PQ">
        <low value="12.0" unit="g/dL"/><high value="16.0" unit="g/dL"/>
      </value></observationRange></referenceRange>
    </observation></component>
  </organizer></entry>
</section></component>
</structuredBody></component>
</ClinicalDocument>
"""
CCDA = (
    _DOCUMENT.replace("{HL7}", "2.16.840.1.113883.10.20.22")
    .replace("{LOINC}", "2.16.840.1.113883.6.1")
    .replace("{SNOMED}", "2.16.840.1.113883.6.96")
    .encode()
)
